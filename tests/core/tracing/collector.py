"""A collector on this machine that remembers spans."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Span:
    """One span as it came."""

    def __init__(self, span: Any, resource: dict[str, Any]) -> None:
        self.name, self.kind, self.resource = span.name, span.kind, resource
        self.trace, self.id, self.parent = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
        self.began, self.ended = span.start_time_unix_nano, span.end_time_unix_nano
        self.failed, self.message = span.status.code == 2, span.status.message
        self.attributes = _values(span.attributes)

    @property
    def seconds(self) -> float:
        return (self.ended - self.began) / 1e9


class Collector:
    """``spans`` so far, ``paths`` and ``headers`` of the requests that brought them."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Span] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []

    def take(self, body: bytes) -> bytes:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages

        for resource in messages.ExportTraceServiceRequest.FromString(body).resource_spans:
            about = _values(resource.resource.attributes)
            self.spans += [Span(span, about) for scope in resource.scope_spans for span in scope.spans]
        return bytes(messages.ExportTraceServiceResponse().SerializeToString())

    def roots(self) -> list[Span]:
        return [span for span in self.spans if span.name == "llm_request"]

    def children(self, root: Span) -> dict[str, Span]:
        return {span.name: span for span in self.spans if span.parent == root.id}


@contextlib.contextmanager
def http_collector() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            collector.paths.append(self.path)
            collector.headers.append({name.lower(): value for name, value in self.headers.items()})
            answer = collector.take(body)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def grpc_collector() -> Iterator[Collector]:
    import grpc

    collector = Collector()
    method = grpc.unary_unary_rpc_method_handler(lambda body, context: collector.take(body))
    handler = grpc.method_handlers_generic_handler("opentelemetry.proto.collector.trace.v1.TraceService", {"Export": method})
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    server.add_generic_rpc_handlers((handler,))
    collector.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait()


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
