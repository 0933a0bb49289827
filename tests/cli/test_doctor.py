"""The doctor: names what is missing, what works without it, and the fix."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tinyredux.cli import app as cli
from tinyredux.cli import doctor


def test_host_and_simulator_work_here_and_every_tool_is_complete() -> None:
    report = doctor.examine()
    assert report["ok"] and report["paths"]["host"] and report["paths"]["simulator"]
    names = [tool["name"] for tool in report["tools"]]
    assert len(set(names)) == len(names)
    for tool in report["tools"]:
        assert tool["without"] and tool["fix"], tool["name"]
        assert tool["ok"] == (tool["version"] is not None)
        assert set(tool["needed_by"]) <= set(doctor.PATHS)


def test_without_compilers_it_says_no_and_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    report = doctor.examine()
    missing = {tool["name"]: tool for tool in report["tools"] if not tool["ok"]}
    assert not report["ok"] and {"host compiler", "Arm compiler"} <= set(missing)
    text = doctor.to_text(report)
    assert "fix: sudo apt-get install --no-install-recommends gcc-arm-none-eabi libnewlib-arm-none-eabi" in text
    assert "does not: host, simulator" in text


def test_a_missing_package_breaks_only_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor._package
    monkeypatch.setattr(doctor, "_package", lambda name, *rest: found("no_" + name if name == "torch" else name, *rest))
    report = doctor.examine()
    assert report["ok"] and not report["paths"]["networks"]


@pytest.mark.parametrize("compiler", ["false", "true", "cat", "/nonesuch", "/etc"])
def test_a_compiler_that_compiles_nothing_is_none(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler)
    (tool,) = (tool for tool in doctor.examine()["tools"] if tool["name"] == "host compiler")
    assert not tool["ok"] and f"CC names {compiler!r}" in tool["fix"]


@pytest.mark.parametrize("script", ["exec sleep 60", "exit 1", "echo", "printf '\\377'", "kill -9 $$"])
def test_tools_that_hang_fail_or_say_nothing(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("qemu-system-arm", "openocd", "arm-none-eabi-gcc"):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(doctor, "_PATIENCE_S", 0.3)
    report = doctor.examine()
    assert not report["paths"]["simulator"] and "Arm compiler" in doctor.to_text(report)


def test_a_cache_that_is_no_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYREDUX_CACHE", os.devnull)
    (tool,) = (tool for tool in doctor.examine()["tools"] if tool["name"] == "cache")
    assert not tool["ok"] and "TINYREDUX_CACHE" in tool["fix"]


def test_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0 and "works: host, simulator" in capsys.readouterr().out
    assert cli.main(["doctor", "--json"]) == 0 and json.loads(capsys.readouterr().out)["ok"] is True
