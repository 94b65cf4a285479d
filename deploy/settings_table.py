"""`python -m deploy.settings_table`: every setting as a Markdown table, from the classes that declare them."""

import json

from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from generator.settings import GeneratorSettings
from hotpath.settings import PipelineSettings
from hotpath.topic import TopicSettings

CLASSES = (PipelineSettings, ApiSettings, GeneratorSettings, TopicSettings)


def _rows(kind: type[BaseSettings], known: set[str]) -> list[str]:
    prefix = kind.model_config["env_prefix"]
    rows = []
    for name, field in kind.model_fields.items():
        if name in known:
            continue
        known.add(name)
        default = field.get_default(call_default_factory=True)
        shown = default if isinstance(default, str) else json.dumps(default)
        about = (field.description or "").replace("|", "\\|")
        rows.append(
            f"| `{prefix}{name.upper()}` | `{shown}` | {about} |"
            if shown
            else f"| `{prefix}{name.upper()}` | | {about} |"
        )
    return rows


def table() -> str:
    """The table; a setting that several commands share stands once."""
    known: set[str] = set()
    lines = ["| setting | default | what it is |", "|---|---|---|"]
    for kind in CLASSES:
        lines += _rows(kind, known)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
