"""House rules about the code itself."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]

LAYERS = [
    {
        "hotpath.events",
        "hotpath.errors",
        "hotpath.clock",
        "hotpath.reference",
        "hotpath.hash_table",
    },
    {
        "hotpath.settings",
        "hotpath.sql",
        "hotpath.partitioner",
        "hotpath.console",
        "hotpath.scheduling",
        "hotpath.kafka",
    },
    {"hotpath.shm", "hotpath.views"},
    {
        "hotpath.workers.logs",
        "hotpath.workers.layout",
        "hotpath.workers.source",
        "hotpath.workers.decode",
        "hotpath.workers.validate",
        "hotpath.workers.texts",
        "hotpath.workers.bot_table",
        "hotpath.workers.postgres_session",
        "hotpath.workers.timestamps",
        "hotpath.workers.bots",
        "hotpath.workers.classify",
        "hotpath.workers.copy_format",
        "hotpath.workers.history",
        "hotpath.workers.postgres_sink",
        "hotpath.workers.live_log",
        "hotpath.workers.redis_sink",
        "hotpath.workers.redis_upkeep",
        "hotpath.workers.topic_watch",
        "hotpath.workers.postgres_watch",
    },
    {
        "hotpath.workers.sink_threads",
        "hotpath.workers.pipeline",
        "hotpath.workers.assignment",
        "hotpath.workers.membership",
        "hotpath.workers.group",
        "hotpath.workers.process",
        "hotpath.workers.handle",
    },
    {
        "hotpath.supervisor",
        "hotpath.status",
        "hotpath.metrics",
        "hotpath.preflight",
        "hotpath.maintenance",
        "hotpath.migrate",
        "hotpath.topic",
        "hotpath.top",
        "hotpath.proof",
        "hotpath.verify",
        "hotpath.quarantine",
        "hotpath.replay",
        "hotpath.consolidate",
        "hotpath.logs",
        "hotpath.cli",
        "hotpath.__main__",
    },
]
STAGES = {"source", "decode", "validate", "bots", "postgres_sink", "redis_sink"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Modules of this project that a file imports, by full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {
        name for name in found if name.split(".")[0] in ("hotpath", "api", "generator", "bench", "deploy")
    }


def layer_of(name: str) -> int | None:
    for number, names in enumerate(LAYERS):
        if any(name == known or name.startswith(known + ".") for known in names):
            return number
    return None


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_every_module_has_a_layer():
    missing = [
        module_name(path)
        for path in python_files("hotpath")
        if path.name != "__init__.py" and layer_of(module_name(path)) is None
    ]
    assert not missing


def test_imports_never_point_upward():
    upward = [
        f"{module_name(path)} imports {name}"
        for path in python_files("hotpath")
        for name in imports(path)
        if (own := layer_of(module_name(path))) is not None
        and (other := layer_of(name)) is not None
        and other > own
    ]
    assert not upward


def test_api_and_generator_import_only_the_lower_layers():
    upward = [
        f"{module_name(path)} imports {name}"
        for path in python_files("api", "generator")
        for name in imports(path)
        if (layer_of(name) or 0) > 2
    ]
    assert not upward


def test_stages_do_not_know_each_other():
    crossing = [
        f"{module_name(path)} imports {name}"
        for path in python_files("hotpath/workers")
        if path.stem in STAGES
        for name in imports(path)
        if name.startswith("hotpath.workers.") and name.split(".")[2] in STAGES - {path.stem}
    ]
    assert not crossing


def test_every_module_says_what_it_holds():
    silent = [
        module_name(path)
        for path in python_files("hotpath", "api", "generator", "bench", "deploy")
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent
