"""Parses YAML with 2e-5 as a number, repeated keys as errors, and bounds on time and memory."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from trainflat.core.untrusted import DEEPEST, refuse_odd

_LONGEST = 2**18  # characters, since PyYAML is slow: seconds for a text of this length
_MOST = 20_000  # values, each counted as often as an alias repeats it ("billion laughs" takes ten lines)
_LONGEST_NUMBER = 1000  # digits; 1:00:00:... is a number too, and takes quadratic time


class _Loader(yaml.SafeLoader):
    """Loads YAML 1.2's numbers (1.1 reads 2e-5 as text), and refuses repeated keys, where PyYAML keeps the last."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if self.flow_level > DEEPEST:  # the scanner takes time quadratic in the depth
            raise RecursionError
        super().fetch_flow_collection_start(TokenClass)

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _refuse_swelling(node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # the parent class refuses it with its line
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} occurs twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _refuse_swelling(node: yaml.Node) -> None:
    """Refuses aliases that expand to too many values or contain themselves."""
    sizes: dict[yaml.Node, int | None] = {}

    def size(node: yaml.Node) -> int:
        if node not in sizes:
            sizes[node] = None  # being counted: met again on the way down, the node contains itself
            inner = [] if isinstance(node, yaml.ScalarNode) else node.value
            if node.tag.endswith((":int", ":float")) and len(node.value) > _LONGEST_NUMBER:
                raise ValueError(f"a number has over {_LONGEST_NUMBER} digits")
            parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
            sizes[node] = 1 + sum(map(size, parts))
        known = sizes[node]
        if known is None:
            raise ValueError("an alias (*name) contains itself")
        return known

    if size(node) > _MOST:
        raise ValueError(f"it holds over {_MOST} values, counting what aliases (*name) repeat")


def parse_yaml(text: str) -> Any:
    """Parses one value as YAML.

    Raises:
        ValueError: the text is not YAML, or too large. The message is one line and says where.

    Example:
        >>> parse_yaml("2e-5"), parse_yaml("[0.1, 0.5]"), parse_yaml("{name: sam, rho: 0.05}"), parse_yaml("none")
        (2e-05, [0.1, 0.5], {'name': 'sam', 'rho': 0.05}, 'none')
    """
    try:
        if len(text) > _LONGEST:
            raise ValueError(f"it has over {_LONGEST} characters")
        value = yaml.load(text, _Loader)
        refuse_odd(value, finite=False)
    # ValueError: a date such as 2024-13-01; the last three: PyYAML's own, of tags that do not fit, such as !!bool x
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(_reason(error)) from error
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"values are nested over {DEEPEST} deep"
    if isinstance(error, yaml.YAMLError | ValueError):
        return " ".join(str(error).split())
    return "a tag (!!name) does not fit its value"
