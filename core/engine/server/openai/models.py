"""GET /v1/models and /v1/models/NAME."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from engine.server.health import as_json
from engine.server.service import Service


async def list_models(service: Service, request: Request) -> Response:
    """Every served name."""
    return as_json({"object": "list", "data": [_card(service, name) for name in service.config.model.served_names]})


async def show_model(service: Service, request: Request) -> Response:
    """One served name."""
    name = request.path_params["name"]
    service.check(next(iter(sorted(service.endpoints)), "completions"), name)
    return as_json(_card(service, name))


def _card(service: Service, name: str) -> dict[str, Any]:
    permission = {
        "id": f"modelperm-{service.fingerprint}",
        "object": "model_permission",
        "created": service.started,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": service.started,
        "owned_by": "engine",
        "root": service.config.model.checkpoint.model,
        "parent": None,
        "max_model_len": service.config.model.max_model_len,
        "permission": [permission],
    }
