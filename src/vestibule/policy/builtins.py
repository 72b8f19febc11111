"""The built-in functions a policy may call.

Left out on purpose: everything that reaches outside or depends on the moment (`http.send`, `net.*`,
`opa.runtime`, `time.*`, `rand.*`, `uuid.*`, `trace`, `print`), what needs keys (`io.jwt.*`, `crypto.*`), what
lets a small policy run for long (`numbers.range`, `walk`, `graph.*`), and what the engine lists but leaves
undefined (`time.parse_rfc3339_ns`, `json.match_schema`, `regex.is_valid`, …): an undefined call in a deny rule
would switch the rule off. Each name below has a known answer in the tests.
"""

from __future__ import annotations

ALLOWED: frozenset[str] = frozenset(
    {
        # aggregates and sets
        "count",
        "sum",
        "max",
        "min",
        "sort",
        "union",
        "intersection",
        # arrays and objects
        "array.concat",
        "array.slice",
        "array.reverse",
        "object.get",
        "object.keys",
        "object.remove",
        "object.filter",
        "object.union",
        "object.subset",
        # strings
        "concat",
        "contains",
        "startswith",
        "endswith",
        "indexof",
        "lower",
        "upper",
        "replace",
        "split",
        "sprintf",
        "substring",
        "trim",
        "trim_left",
        "trim_right",
        "trim_prefix",
        "trim_suffix",
        "trim_space",
        "strings.any_prefix_match",
        "strings.any_suffix_match",
        "regex.match",
        "glob.match",
        # numbers and types
        "abs",
        "ceil",
        "floor",
        "round",
        "to_number",
        "format_int",
        "type_name",
        "is_array",
        "is_boolean",
        "is_null",
        "is_number",
        "is_object",
        "is_set",
        "is_string",
        "semver.compare",
        "semver.is_valid",
    }
)
