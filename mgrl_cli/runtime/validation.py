"""Validations: at the end of some rounds, while all workers rest, fresh agents test the objective.

Decides when, keeps what came out and which objective is the best so far; the tests themselves are
somebody else's, handed in. All of it can be cut back to a checkpoint, and what was finished of a
validation is found again then. Training and tests share no process: neither can change the other.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, final

from mgrl_cli.config import RunConfig
from mgrl_cli.errors import FileError, MgrlError, StorageError
from mgrl_cli.run_dir.atomic import explain_os_error, remove_unfinished, write_atomically
from mgrl_cli.run_dir.file_record import FileRecord, record_of_file
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.manifest import OBJECTIVE_NAME, Manifest, ValidationRecord
from mgrl_cli.run_dir.metrics import read_records
from mgrl_cli.run_dir.validations import Validation, are_over, best_validation, validations_of
from mgrl_cli.telemetry import ValidationSnapshot

_LARGEST_OBJECTIVE_BYTES = 64 * 2**20


class Validator(Protocol):
    """Tests an objective on fresh agents, in runs of their own."""

    def __call__(
        self,
        run: RunDirectory,
        round_index: int,
        stop_signal: Callable[[], int | None],
        show: Callable[[float], None],
    ) -> Mapping[str, Sequence[float]] | None:
        """Test `run.validation_at(round_index) / OBJECTIVE_NAME`, or go on with it.

        Args:
            run: the meta-training; its settings say on what to test.
            round_index: at whose end the objective stood as it is there.
            stop_signal: asked a few times a second; a signal's number: save and return.
            show: told a few times a second how much is done, in [0, 1].

        Returns:
            Environment → final scores of the fresh agents by seed, NaN for one that has none; None:
            stopped before the end, to be called again.

        Raises:
            MgrlError: the tests cannot be made.
        """
        ...


@final
class Validations:
    """The validations of one run, up to now."""

    def __init__(
        self,
        config: RunConfig,
        run: RunDirectory,
        validator: Validator | None,
        manifest: Manifest | None,
    ) -> None:
        """Begin, or give the run back the best objective of a checkpoint.

        Args:
            config: of the run.
            run: its metrics are cut back to the checkpoint already.
            validator: makes the tests; None: the run has none.
            manifest: of the checkpoint to continue from; None: the run begins.

        Raises:
            FileError: what the checkpoint recorded is not there.
            StorageError: the operating system refused.
        """
        self._config = config
        self._run = run
        self._validator = validator
        self._past: list[Validation] = []
        self._best_record: FileRecord | None = None
        self._testing_round = 0
        self._fraction = 0.0
        if not self.are_wanted:
            return
        record = manifest.validation if manifest is not None else None
        if record is not None and record.newest:
            self._past = validations_of(read_records(run.validation_metrics))
        if record is not None and record.objective is not None:
            self._give_back(record.best, record.objective)
        else:
            _remove(run)

    @property
    def are_wanted(self) -> bool:
        """Whether the run has any."""
        return self._config.kind == "meta-train" and bool(self._config.validation.envs)

    @property
    def are_over(self) -> bool:
        """Whether they end the run before its last round."""
        return self._newest < self._config.num_rounds and are_over(
            self._past, self._config.validation.patience
        )

    @property
    def record(self) -> ValidationRecord | None:
        """How far they have come, for a manifest; None where the run has none."""
        if not self.are_wanted:
            return None
        best = best_validation(self._past)
        return ValidationRecord(
            newest=self._newest,
            best=best.round_index if best is not None else 0,
            objective=self._best_record,
            is_over=self.are_over,
        )

    @property
    def snapshot(self) -> ValidationSnapshot | None:
        """What to show of them; None where the run has none."""
        if not self.are_wanted:
            return None
        best = best_validation(self._past)
        return ValidationSnapshot(
            round_index=self._newest,
            scores=self._past[-1].scores if self._past else {},
            best_round=best.round_index if best is not None else 0,
            best_scores=best.scores if best is not None else {},
            testing_round=self._testing_round,
            fraction=self._fraction,
        )

    @property
    def announcement(self) -> str:
        """What came out of the newest one, in one line."""
        newest, best = self._past[-1], best_validation(self._past)
        found = ", ".join(f"{name} {score:.1f}" for name, score in newest.scores.items())
        verdict = (
            f"the best so far is round {best.round_index}" if best is not None else "no score yet"
        )
        return f"validation after round {newest.round_index}: {found}; {verdict}"

    def are_due(self, rounds: int) -> bool:
        """Return whether the objective must be tested now that so many rounds are finished."""
        return self._config.validates_after(rounds) and self._newest < rounds

    def hold(
        self,
        rounds: int,
        objective: bytes,
        stop_signal: Callable[[], int | None],
        show: Callable[[], None],
    ) -> dict[str, object] | None:
        """Test an objective; return the row for the metrics, None where a signal came before.

        Args:
            rounds: finished; the training is saved as it is now.
            objective: content of its file.
            stop_signal: asked a few times a second.
            show: called a few times a second.

        Raises:
            MgrlError: the tests cannot be made.
        """
        if self._validator is None:
            raise MgrlError("internal error: a run with validations has no validator")

        def advance(fraction: float) -> None:
            self._fraction = fraction
            show()

        self._lay_out(rounds, objective)
        self._testing_round, self._fraction = rounds, 0.0
        try:
            scores = self._validator(self._run, rounds, stop_signal, advance)
        finally:
            self._testing_round = 0
        if scores is None:
            return None
        self._past.append(Validation(rounds, {name: tuple(own) for name, own in scores.items()}))
        self._keep_best()
        return self._row()

    @property
    def _newest(self) -> int:
        return self._past[-1].round_index if self._past else 0

    def _lay_out(self, rounds: int, objective: bytes) -> None:
        """Put the objective where it is tested; tests of another one there are not of this run."""
        directory = self._run.validation_at(rounds)
        path = directory / OBJECTIVE_NAME
        try:
            if path.is_file() and path.read_bytes() == objective:
                remove_unfinished(directory)
                return
            if directory.exists():
                shutil.rmtree(directory)
        except OSError as error:
            raise StorageError(explain_os_error(error, f"tidy '{directory}'")) from error
        write_atomically(path, objective)

    def _keep_best(self) -> None:
        """Make the best objective the run's, where it is not."""
        best = best_validation(self._past)
        if best is None:
            return
        path = self._run.validation_at(best.round_index) / OBJECTIVE_NAME
        record = record_of_file(path, _LARGEST_OBJECTIVE_BYTES)
        if record != self._best_record:
            _copy(path, self._run)
        self._best_record = record

    def _give_back(self, best_round: int, record: FileRecord) -> None:
        path = self._run.validation_at(best_round) / OBJECTIVE_NAME
        if record_of_file(path, record.bytes) != record:
            raise FileError(
                f"'{path}' is not the best objective that the checkpoint recorded; restore it from "
                "a copy"
            )
        _copy(path, self._run)
        self._best_record = record

    def _row(self) -> dict[str, object]:
        newest, best = self._past[-1], best_validation(self._past)
        steps = newest.round_index * self._config.schedule.round_steps
        return {
            "round": newest.round_index,
            "env_steps": min(steps, self._config.steps),
            "scores": {name: _or_none(score) for name, score in newest.scores.items()},
            "seed_scores": {
                name: [_or_none(score) for score in scores]
                for name, scores in newest.seed_scores.items()
            },
            "best_round": best.round_index if best is not None else None,
        }


def _or_none(score: float) -> float | None:
    return None if math.isnan(score) else score


def _copy(path: Path, run: RunDirectory) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(explain_os_error(error, f"read '{path}'")) from error
    write_atomically(run.best_objective, content)


def _remove(run: RunDirectory) -> None:
    try:
        run.best_objective.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(explain_os_error(error, f"remove '{run.best_objective}'")) from error
