"""One tree of expected failures: each is one line for a person, with the values and the way out.

Anything raised that is not an `OrchestratorError` is a bug and keeps its traceback.
"""

from __future__ import annotations


class OrchestratorError(Exception):
    """An expected failure: the CLI prints its text on one line and exits with code 1."""


class ConfigError(OrchestratorError):
    """A file or an argument that cannot be used as it is; the text names the field and the mend."""


class UnknownModel(OrchestratorError):
    """A model name that neither the catalogue nor the disk knows; the text suggests near names."""


class UnknownArchitecture(UnknownModel):
    """A model class whose shapes are not known here; nothing about it is guessed."""


class UnknownGpu(ConfigError):
    """A GPU name outside the catalogue; the text suggests near names."""


class CheckpointUnavailable(OrchestratorError):
    """A checkpoint that cannot be fetched, built or kept here; the text gives the cause and the way out."""


class NoFeasiblePlan(OrchestratorError):
    """No layout fits; `reasons` keeps one sentence for each candidate that was refused."""

    def __init__(self, message: str, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons


class StalePlan(OrchestratorError):
    """A plan made for a cluster that has changed since; the text names the difference."""


class SeatTaken(StalePlan):
    """A GPU of a plan that another deployment took while the plan was being made; planning again will do."""


class ApplyFailed(OrchestratorError):
    """A deployment that did not come up; the text gives the engine's own cause."""


class ClusterUnavailable(OrchestratorError):
    """No Ray to talk to, or one that cannot be used (version, authentication, reach)."""


class PlanInconsistent(OrchestratorError):
    """A plan whose books do not balance; the text names what is held twice, lost or miscounted."""
