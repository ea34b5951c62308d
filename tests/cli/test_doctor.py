"""`ami doctor`: what it reports, and when it finds a problem."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

import ami_engine
from ami_engine.features import available_backends
from ami_engine.features.schema import SCHEMA_HASH

from .conftest import Ami


def test_the_report_is_of_this_machine(ami: Ami) -> None:
    said = ami("doctor", "--json")
    report = said.document
    assert said.code == (1 if report["problems"] else 0)
    assert said.err == ""
    assert report["engine"] == ami_engine.__version__
    assert report["feature_schema"] == SCHEMA_HASH
    assert report["backends"] == {name: reason or "available" for name, reason in available_backends().items()}
    assert report["packages"]["msgspec"] == importlib.metadata.version("msgspec")
    assert report["clock"]["smallest_measurable_ns"] > 0
    assert report["disk"]["is_writable"] is True
    if report["backends"]["native"] == "available":
        assert report["build"]["schema"] == SCHEMA_HASH


def test_the_table_holds_every_part(ami: Ami) -> None:
    said = ami("doctor")
    keys = [key for key in ami("doctor", "--json").document if key not in ("problems", "backend_forced_by_AMI_BACKEND")]
    assert [key for key in keys if key not in said.out] == []
    assert ("everything is in order" in said.out) == (said.code == 0)


def test_a_forced_backend_is_told(ami: Ami, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMI_BACKEND", "reference")
    assert ami("doctor", "--json").document["backend_forced_by_AMI_BACKEND"] == "reference"


def test_two_owners_of_the_decision_schema_are_a_problem(ami: Ami, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {"decision_schema": ["mdm-engine", "decision-schema"]}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: owners)
    said = ami("doctor", "--json")
    assert said.code == 1
    assert any("decision-schema, mdm-engine" in problem for problem in said.document["problems"])
    assert "problem" in ami("doctor").out


def test_nothing_is_left_on_the_disk(ami: Ami, tmp_path: Path) -> None:
    ami("doctor")
    assert list(tmp_path.iterdir()) == []


def test_a_backend_that_is_forced_and_is_none_is_a_problem(ami: Ami, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMI_BACKEND", "zz")
    said = ami("doctor", "--json")
    assert said.code == 1
    assert any("AMI_BACKEND" in problem and "'zz'" in problem for problem in said.document["problems"])
