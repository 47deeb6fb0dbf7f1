"""What the tests of the command line share."""

SMALL = ["--rungs", "mask", "--budget", "30", "--population", "10", "--controls", "4", "--finalists", "4"]


def refused(result: tuple[int, str, str], *words: str, code: int = 1) -> str:
    assert result[0] == code, result
    assert "Traceback" not in result[2]
    for word in words:
        assert word in result[2], result[2]
    return result[2]
