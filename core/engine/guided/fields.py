"""Request fields to one constraint: guided_*, response_format and structured_outputs, of which at most one may ask for something."""

from __future__ import annotations

import json
from typing import Any, Protocol

import msgspec

from engine.args.guided import split_backend
from engine.errors import RequestError
from engine.guided.limits import WrongConstraint, check
from engine.plugin.request import GuideSpec


class GuidedFields(Protocol):
    """The fields of a body that constrain its output."""

    guided_json: Any
    guided_regex: str | None
    guided_choice: list[Any] | None
    guided_grammar: str | None
    guided_decoding_backend: str | None
    guided_whitespace_pattern: str | None
    response_format: dict[str, Any] | None
    structured_outputs: dict[str, Any] | None


#: Field, kind, value and options of one constraint.
Asked = tuple[str, str, Any, dict[str, Any]]
_KINDS = ("json", "regex", "choice", "grammar")
#: structured_outputs: constraints and how they are laid out.
_OUTPUTS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
_LAYOUT = ("disable_any_whitespace", "whitespace_pattern", "disable_fallback", "disable_additional_properties")


def read_guide(body: GuidedFields) -> tuple[str, GuideSpec] | None:
    """The field's name and the constraint, or None. Raises RequestError naming the field."""
    found: list[Asked] = [
        (f"guided_{kind}", kind, getattr(body, f"guided_{kind}"), {}) for kind in _KINDS if getattr(body, f"guided_{kind}") is not None
    ]
    found += _response_format(body.response_format)
    found += _structured(body.structured_outputs)
    if not found:
        _refuse_idle(body)
        return None
    field, kind, value, options = found[0]
    if len(found) > 1:
        raise RequestError(f"{field} and {found[1][0]} both constrain the output; only one can.", param=found[1][0])
    if body.guided_whitespace_pattern is not None:
        options = options | {"whitespace_pattern": body.guided_whitespace_pattern}
    spec = GuideSpec(kind, plain_value(field, kind, value), body.guided_decoding_backend, options)
    verify(field, spec)
    return field, spec


def plain(spec: GuideSpec) -> GuideSpec:
    """A constraint that was given as a spec, verified and in its one form. Raises RequestError naming ``guide``."""
    spec = msgspec.structs.replace(spec, value=plain_value("guide", spec.kind, spec.value))
    verify("guide", spec)
    return spec


def verify(field: str, spec: GuideSpec) -> None:
    """Raise RequestError for a constraint that no backend should see."""
    if spec.kind not in _OUTPUTS:
        raise RequestError(f"{field}: the kind {spec.kind!r} is unknown; known: {', '.join(_OUTPUTS)}.", param=field)
    if spec.backend is not None:
        try:
            split_backend(spec.backend)
        except ValueError as error:
            raise RequestError(f"guided_decoding_backend: {error}.", param="guided_decoding_backend") from error
    try:
        check(spec)
    except WrongConstraint as error:
        raise RequestError(f"{field} cannot be used: {error}.", param=field) from error


def plain_value(field: str, kind: str, value: Any) -> Any:
    """The value in its one form: a schema given as text is parsed, choices are texts."""
    if kind == "json" and isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{field} is not valid JSON: {error}.", param=field) from error
    if kind == "structural_tag" and isinstance(value, str):
        return plain_value(field, "json", value)
    return value


def _refuse_idle(body: GuidedFields) -> None:
    for name in ("guided_decoding_backend", "guided_whitespace_pattern"):
        if getattr(body, name) is not None and name == "guided_whitespace_pattern":
            raise RequestError(f"{name} needs a constraint beside it, such as guided_json.", param=name)


def _response_format(value: dict[str, Any] | None) -> list[Asked]:
    if value is None:
        return []
    kind = value.get("type")
    if kind == "text":
        return []
    if kind == "json_object":
        return [("response_format", "json_object", None, {})]
    if kind == "json_schema":
        wrapper = value.get("json_schema")
        schema = wrapper.get("schema", wrapper.get("json_schema")) if isinstance(wrapper, dict) else None
        if schema is None:
            raise RequestError("response_format.json_schema.schema is required.", param="response_format.json_schema.schema")
        return [("response_format", "json", schema, {})]
    if kind == "structural_tag":
        return [("response_format", "structural_tag", {key: item for key, item in value.items() if key != "type"}, {})]
    allowed = "'text', 'json_object', 'json_schema', 'structural_tag'"
    raise RequestError(f"response_format.type cannot be {str(kind)[:40]!r}; allowed: {allowed}.", param="response_format.type")


def _structured(value: dict[str, Any] | None) -> list[Asked]:
    if value is None:
        return []
    for key in value:
        if key not in (*_OUTPUTS, *_LAYOUT) and not key.startswith("_"):
            known = ", ".join((*_OUTPUTS, *_LAYOUT))
            raise RequestError(f"structured_outputs.{key[:40]} is unknown; known: {known}.", param=f"structured_outputs.{key[:40]}")
    if value.get("disable_additional_properties"):
        name = "structured_outputs.disable_additional_properties"
        raise RequestError(f"{name} is not available in this version; write additionalProperties into the schema.", param=name)
    options: dict[str, Any] = {}
    if value.get("whitespace_pattern") is not None:
        options["whitespace_pattern"] = value["whitespace_pattern"]
    if value.get("disable_any_whitespace"):
        options["any_whitespace"] = False
    if value.get("disable_fallback"):
        options["fallback"] = False
    asked = [key for key in _OUTPUTS if value.get(key) not in (None, False)]
    if not asked:
        raise RequestError(f"structured_outputs needs one of {', '.join(_OUTPUTS)}.", param="structured_outputs")
    return [(f"structured_outputs.{key}", key, None if key == "json_object" else value[key], options) for key in asked]
