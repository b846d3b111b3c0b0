"""Which features of a constraint a backend really enforces: one table per backend, proven by tools/guided_keywords."""

from __future__ import annotations

from dataclasses import dataclass

from engine.plugin import GuideSpec

from ._schema import Features, first_unmet

_NUMBER = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_LENGTH = frozenset({"minLength", "maxLength"})
_OBJECT = frozenset({"properties", "required", "additionalProperties"})
_ARRAY = frozenset({"items", "prefixItems", "minItems", "maxItems"})
_ALL_KINDS = frozenset({"json", "json_object", "regex", "choice", "grammar", "structural_tag"})


@dataclass(frozen=True)
class Rules:
    """``kinds`` of constraints, and what of JSON Schema is enforced."""

    kinds: frozenset[str]
    schema: Features


XGRAMMAR = Rules(
    _ALL_KINDS,
    Features(
        string=_LENGTH | {"pattern", "format"},
        formats=frozenset({"date", "time", "date-time", "uuid", "ipv4", "ipv6", "email", "hostname", "duration"}),
        number=_NUMBER,
        integer=_NUMBER,
        array=_ARRAY,
        object=_OBJECT,
        recursion=True,
        anything=True,
        patterns="classes",
    ),
)


GUIDANCE = Rules(
    _ALL_KINDS,
    Features(
        string=_LENGTH | {"pattern", "format"},
        formats=frozenset({"date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}),
        number=_NUMBER | {"multipleOf"},
        integer=_NUMBER | {"multipleOf"},
        array=_ARRAY,
        object=_OBJECT | {"patternProperties", "minProperties", "maxProperties"},
        recursion=True,
        anything=True,
        siblings=True,
        all_of=True,
        patterns="any",
        together=True,
    ),
)


OUTLINES = Rules(
    frozenset({"json", "regex", "choice"}),
    Features(
        string=_LENGTH | {"pattern", "format"},
        formats=frozenset({"date", "time", "date-time", "ipv4", "uuid"}),  # its other formats let JSON's own characters through
        number=frozenset(),
        integer=frozenset(),
        array=frozenset({"items", "prefixItems", "minItems", "maxItems"}),
        object=_OBJECT,
        anything=False,
        escaped_names=False,
    ),
)

ENFORCER = Rules(
    frozenset({"json", "regex", "choice"}),
    Features(
        string=_LENGTH | {"pattern"},
        formats=frozenset(),
        number=frozenset(),
        integer=frozenset(),
        array=frozenset({"items", "minItems", "maxItems"}),
        object=_OBJECT,
        one_of=False,
        mixed_enum=False,
        empty_array=False,
        escapes=False,
        optional=False,  # after a comma it lets an object end
        patterns="classes",
    ),
)


def unmet(spec: GuideSpec, rules: Rules) -> str | None:
    """The first feature of the constraint that the rules lack, or None."""
    if spec.kind not in rules.kinds:
        return f"constraints of kind {spec.kind}"
    if spec.kind == "json":
        return first_unmet(spec.value, rules.schema)
    if spec.kind == "structural_tag" and "structures" in spec.value:
        for item in spec.value["structures"]:
            found = first_unmet(item["schema"], rules.schema)
            if found is not None:
                return found
    return None
