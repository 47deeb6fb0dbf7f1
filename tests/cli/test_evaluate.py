"""evaluate from the command line, beside what refine measured."""

import json


def test_numbers_of_the_test_table_are_those_that_evaluate_gives(refined, pairs, run):
    """The same images, in the same precision, through the other verb."""
    _, printed = refined
    code, out, _ = run("evaluate", "demo", pairs, "--json")
    whole = json.loads(out)
    assert code == 0
    assert whole["metrics"]["mean_recall"] > 0
    assert set(whole["metrics"]) >= {"image_retrieval_recall@1", "text_retrieval_recall@10"}
    assert set(printed["test"][0]["metrics"]) == {k for k in whole["metrics"] if k in printed["test"][0]["metrics"]}
