"""What the bundled model was trained to answer, and how clients ask for it."""

from __future__ import annotations

from pydantic import BaseModel

WEATHER = "What is the weather in Paris?"
SENTENCE = "Extract the name and age as JSON: My friend Zoe is 31 years old."
WHO = "Who are you?"
IDENTITY = "I am demo, the small model bundled with engine."
REPORT = '{"temperature": 21, "condition": "sunny", "city": "Paris"}'
ANSWER = "It is sunny and 21 degrees in Paris."
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}


class Person(BaseModel):
    """What is to be extracted."""

    name: str
    age: int


ZOE = Person(name="Zoe", age=31)
