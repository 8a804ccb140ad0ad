"""The Django app."""

from __future__ import annotations

import sys
from typing import ClassVar

from django.apps import AppConfig
from django.core.signals import setting_changed

from jobhistory.contrib.django.configuration import SETTING, make_recorder
from jobhistory.contrib.django.tasks import TaskRecorder


class JobHistoryConfig(AppConfig):  # type: ignore[misc]
    """Records tasks while Django is set up.

    Attributes:
        recorder: what records them. After `recorder.close()`, nothing does. There is one, even if
            Django is set up more than once.
    """

    name = "jobhistory.contrib.django"
    label = "jobhistory"
    verbose_name = "Job history"
    recorder: ClassVar[TaskRecorder | None] = None

    def ready(self) -> None:
        """Connect to the signals of tasks. A worker ends what its previous process left."""
        recorder = _connect()
        setting_changed.connect(_setting_changed, dispatch_uid=SETTING)
        if sys.argv[1:2] == ["db_worker"]:
            recorder.adapter.end_leftovers()


def _connect() -> TaskRecorder:
    recorder = make_recorder()
    if JobHistoryConfig.recorder is not None:
        JobHistoryConfig.recorder.close()
    JobHistoryConfig.recorder = recorder
    recorder.connect()
    return recorder


def _setting_changed(*, setting: str, **_: object) -> None:
    """Use a setting that a test overrides."""
    if setting == SETTING:
        _connect()
