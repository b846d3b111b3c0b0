"""The shortest prompt runs first."""
from engine.plugin import SchedulingPolicy, hookimpl

ENGINE_API = 1

class ShortestPrompt(SchedulingPolicy):
    def key(self, request):
        return (request.prompt_tokens, request.arrival, request.id)

@hookimpl
def engine_create_policy():
    return ShortestPrompt()
