"""YAML as people expect it: 2e-5 is a number, and a key that occurs twice is a mistake."""

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers (1.1 reads 2e-5 as text); of two equal keys the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: list[Any] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} occurs twice", key_node.start_mark
                )
            seen.append(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str) -> Any:
    """A value as YAML reads it.

    Raises:
        ValueError: it is none. The text is one line and says where.

    Example:
        >>> parse_yaml("2e-5"), parse_yaml("[0.1, 0.5]"), parse_yaml("{name: sam, rho: 0.05}"), parse_yaml("none")
        (2e-05, [0.1, 0.5], {'name': 'sam', 'rho': 0.05}, 'none')
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-13-01
        raise ValueError(" ".join(str(error).split())) from error
