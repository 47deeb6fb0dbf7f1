"""Workers on Ray give the study of one process, also when one is killed; a cluster that is not there is refused."""

import os
import signal
import threading
import time

import pytest
from test_crew import bench, expected, many, scored  # noqa: F401 (fixtures)

from headwise.errors import HeadwiseError
from headwise.evaluation.crew.crew import Crew
from headwise.evaluation.crew.work import spec_of

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")])))
        ray.init(num_cpus=3, include_dashboard=False, logging_level="error", log_to_driver=False)
        yield
        ray.shutdown()


def test_three_actors_write_the_bytes_of_one_process(cluster, bench, expected, tmp_path):  # noqa: F811
    from headwise.evaluation.crew.rays import Rays

    said: list[str] = []
    crew = Crew(Rays("auto", 3, "cpu", 1), spec_of(bench.model, bench.layout), bench.cache_dir, said.append)
    assert scored(bench, many(bench), tmp_path / "three.sqlite", crew) == expected

    def kill():
        time.sleep(0.3)
        os.kill(ray.get(crew.hands[0]._actor.process.remote()), signal.SIGKILL)  # type: ignore[attr-defined]

    striking = threading.Thread(target=kill)
    striking.start()
    assert scored(bench, many(bench), tmp_path / "killed.sqlite", crew) == expected
    striking.join()
    crew.close()


def test_more_workers_than_the_cluster_has_room_for(cluster):
    from headwise.evaluation.crew.rays import Rays

    with pytest.raises(HeadwiseError, match="3 cores"):
        Rays("auto", 4, "cpu", 1)
    with pytest.raises(HeadwiseError, match="0 GPUs"):
        Rays("auto", 1, "cuda", 1)


def test_a_cluster_that_is_not_there():
    from headwise.evaluation.crew.rays import Rays

    for address in ("127.0.0.1:1", "nonsense"):
        with pytest.raises(HeadwiseError, match=f"no Ray cluster at {address}"):
            Rays(address, 1, "cpu", 1)
