"""`python -m deploy.settings_table`: every setting as a Markdown table, from the classes that declare them."""

import json

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from generator.settings import AppSettings, GeneratorSettings
from hotpath.settings import PipelineSettings
from hotpath.top import TopSettings
from hotpath.topic import TopicSettings

CLASSES = (PipelineSettings, ApiSettings, GeneratorSettings, AppSettings, TopicSettings, TopSettings)


def _rows(kind: type[BaseSettings], known: set[str]) -> list[str]:
    prefix = kind.model_config["env_prefix"]
    rows = []
    for name, field in kind.model_fields.items():
        if name in known:
            continue
        known.add(name)
        shown = _shown(field.get_default(call_default_factory=True))
        about = (field.description or "").replace("|", "\\|")
        rows.append(
            f"| `{prefix}{name.upper()}` | `{shown}` | {about} |"
            if shown
            else f"| `{prefix}{name.upper()}` | | {about} |"
        )
    return rows


def _shown(default: object) -> str:
    """A default as a person would write it."""
    if isinstance(default, SecretStr):
        return default.get_secret_value()
    return default if isinstance(default, str) else json.dumps(default)


def table() -> str:
    """The table; a setting that several commands share stands once."""
    known: set[str] = set()
    lines = ["| setting | default | what it is |", "|---|---|---|"]
    for kind in CLASSES:
        lines += _rows(kind, known)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
