"""A reporter that remembers what a run said and which stages it had."""

from headwise.jobs.steps.progress import Silent


class Told(Silent):
    """Remembers."""

    def __init__(self):
        self.said, self.stages = [], []

    def say(self, text):
        self.said.append(text)

    def stage(self, title, total, unit):
        self.stages.append(title)
        return super().stage(title, total, unit)
