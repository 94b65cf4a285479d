"""The deployment's files, as far as they can be checked without an engine."""

import configparser
import re
from pathlib import Path

import pytest
import yaml

from api.settings import ApiSettings
from deploy.settings_table import CLASSES, table
from hotpath.errors import ConfigError
from hotpath.metrics import WorkerMetrics
from hotpath.settings import PipelineSettings
from hotpath.supervisor import NOT_RESTARTED

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
ONE_SHOT = {name for name, service in SERVICES.items() if service.get("restart") == "no"}


def _settings() -> set[str]:
    """The environment variables that some command reads."""
    return {
        f"{kind.model_config['env_prefix']}{name.upper()}" for kind in CLASSES for name in kind.model_fields
    }


def _written_passwords(service: dict) -> list[str]:
    """What stands where a password does and is no variable."""
    places = (
        r'password"?\s*[:=]\s*"?([^\s"}]+)',
        r"://[^:@/\s]*:([^@/\s]+)@",
        r'user_\w+="([^"]+)',
        r'--requirepass\s+"?([^\s"]+)',
    )
    lines = [f"{name}: {value}" for name, value in service.get("environment", {}).items()]
    text = "\n".join([*lines, *service.get("command", [])])
    text = re.sub(r"\$\{[^}]*\}|\$\$\w+", "$", text)
    found = [value for place in places for value in re.findall(place, text, re.IGNORECASE)]
    return [value for value in found if not value.startswith("$")]


def test_the_runbook_lists_every_setting_as_it_is():
    assert table() in (DEPLOY / "README.md").read_text()


def test_every_service_that_stays_has_a_health_check():
    assert {"topic", "migrate"} == ONE_SHOT
    assert [
        name for name, service in SERVICES.items() if name not in ONE_SHOT and "healthcheck" not in service
    ] == []


def test_ports_are_published_on_loopback_alone():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_passwords_have_no_defaults():
    text = (DEPLOY / "compose.yaml").read_text()
    variables = re.findall(r"\$\{([A-Z_]+)([^}]*)\}", text)
    passwords = {name: rest for name, rest in variables if name.endswith("PASSWORD")}
    assert passwords.keys() == {"KAFKA_PASSWORD", "POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    assert all(rest.startswith(":?") for name, rest in variables if name in passwords)
    assert {name for name, _ in variables} - passwords.keys() <= _settings()


def test_no_password_is_written_out():
    assert [name for name, service in SERVICES.items() if _written_passwords(service)] == []


@pytest.mark.parametrize(
    "setting",
    [
        {"POSTGRES_PASSWORD": "hunter2"},
        {"HOTPATH_POSTGRES_DSN": "postgresql://hotpath:hunter2@postgres/hotpath"},
        {"HOTPATH_REDIS_URL": "redis://:hunter2@redis:6379/0"},
        {"HOTPATH_KAFKA_OPTIONS": '{"sasl.password": "hunter2"}'},
        {"JAAS": 'PlainLoginModule required username="hotpath" user_hotpath="hunter2";'},
    ],
)
def test_a_password_that_is_written_out_would_be_seen(setting):
    assert _written_passwords({"environment": setting}) == ["hunter2"]


def test_a_password_that_is_written_into_a_command_would_be_seen():
    assert _written_passwords({"command": ["redis-server --requirepass hunter2"]}) == ["hunter2"]


def test_services_get_longer_to_stop_than_they_take_to_drain():
    grace = int(SERVICES["supervisor"]["stop_grace_period"].removesuffix("s"))
    # The supervisor itself waits two seconds longer than its workers.
    assert grace > PipelineSettings.model_fields["drain_deadline_s"].default + 2
    api = SERVICES["api"].get("stop_grace_period", "10s")  # compose's default
    assert int(api.removesuffix("s")) > ApiSettings.model_fields["api_drain_deadline_s"].default


def test_what_must_not_be_restarted_is_not():
    """By systemd's knowledge of exit codes, and in containers, which know none, by not ending."""
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read_string((DEPLOY / "hotpath.service").read_text())
    service = unit["Service"]
    final = {str(code) for code in (*NOT_RESTARTED, ConfigError.exit_code)}
    assert set(service["RestartPreventExitStatus"].split()) == final
    assert service["Restart"] == "always" and service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > PipelineSettings.model_fields["drain_deadline_s"].default + 2
    supervisor = SERVICES["supervisor"]
    assert supervisor["restart"] != "no"
    assert supervisor["environment"]["HOTPATH_STAY_WHEN_GIVEN_UP"] == "true"
    assert SERVICES["api"]["environment"].items() <= supervisor["environment"].items()


def test_the_image_has_the_python_that_the_versions_were_tested_on():
    tested = re.search(r"on Python (\d+\.\d+)", (DEPLOY / "constraints.txt").read_text())[1]
    images = re.findall(r"^FROM python:(\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert images and set(images) == {f"{tested}-slim"}


def test_compose_has_no_key_that_does_not_exist():
    """What an engine would refuse at once; there is none here to ask."""
    known = {
        *(
            "build",
            "command",
            "depends_on",
            "environment",
            "healthcheck",
            "image",
            "ports",
            "profiles",
            "restart",
        ),
        *("shm_size", "stop_grace_period", "volumes"),
    }
    assert {key for service in SERVICES.values() for key in service} <= known
    checks = [service["healthcheck"] for service in SERVICES.values() if "healthcheck" in service]
    assert {key for check in checks for key in check} <= {
        "test",
        "interval",
        "timeout",
        "retries",
        "start_period",
    }
    assert all(check["test"][0] in ("CMD", "CMD-SHELL") for check in checks)
    mounted = {
        volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])
    }
    assert mounted == COMPOSE["volumes"].keys()
    policies = {service["restart"] for service in SERVICES.values()}
    assert policies <= {"no", "always", "unless-stopped", "on-failure"}
    assert COMPOSE.keys() <= {"name", "services", "volumes", "x-hotpath"}
    values = [value for service in SERVICES.values() for value in service.get("environment", {}).values()]
    assert all(isinstance(value, str | int) and not isinstance(value, bool) for value in values)


def test_the_runbook_watches_metrics_that_exist():
    exist = {
        metric.name + ("_total" if metric.type == "counter" else "") for metric in WorkerMetrics([]).collect()
    }
    watched = set(re.findall(r"`(hotpath_\w+)", (DEPLOY / "README.md").read_text()))
    assert watched and watched <= exist


def test_services_are_configured_by_settings_that_exist():
    used = {
        name
        for service in SERVICES.values()
        for name in service["environment"]
        if name.startswith("HOTPATH_")
    }
    assert used and used <= _settings()


def test_services_wait_for_services_that_exist():
    for name, service in SERVICES.items():
        for other, wait in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert wait["condition"] == wanted, (name, other)


def test_the_image_copies_what_the_commands_need():
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    modules = {
        service["command"][2].split(".")[0]
        for service in SERVICES.values()
        if "-m" in service.get("command", [])
    }
    assert modules == {"hotpath", "api", "generator"}
    for folder in (*modules, "sql"):
        assert f"COPY {folder} /app/{folder}" in dockerfile
    assert "USER hotpath" in dockerfile
