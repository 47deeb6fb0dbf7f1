"""The explorer of a finished run, opened for a test."""

from headwise.jobs.explore import prepare
from headwise.jobs.report import finished
from headwise.jobs.steps.opening import Machine
from headwise.jobs.steps.progress import Silent
from headwise.jobs.steps.tasks import Goal


def opened(run, **options):
    given = {
        "pairs": None,
        "most_images": 1000,
        "goal": Goal(),
        "machine": Machine(dtype="float32"),  # compared with the model's own forward, to the last neighbour
        "reporter": Silent(),
        "columns": {},
    } | options
    return prepare(run, finished(run), **given)


def last(session, **request) -> dict:
    *_, found = session.look({"edits": {}, **request})
    return found
