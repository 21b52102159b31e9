"""Many clients on one served model."""

import random
from concurrent import futures

import numpy as np
import pytest

from components.serving import clients

pytestmark = pytest.mark.reliability
_CLIENTS, _REQUESTS = 64, 10


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_64_clients_get_their_own_scores(protocol, pushed, model_server, survived, toys, to_png):
    images, _ = toys(64, 3, seed=3)
    expected = np.asarray(pushed.scorer(images)["anomaly_score"])
    pngs = [to_png(image) for image in images]

    def work(seed):
        client = clients.remote(getattr(model_server, protocol), "capsad", timeout=120)
        generator = random.Random(seed)
        harms = []
        for _ in range(_REQUESTS):
            chosen = generator.choices(range(len(images)), k=generator.randint(1, 16))
            try:
                scores = client.score([pngs[index] for index in chosen])["anomaly_score"]
                wrong = np.abs(scores - expected[chosen]).max() > 1e-5
                harms.append("wrong scores" if wrong else "")
            except Exception as error:
                harms.append(repr(error))
        return harms

    with futures.ThreadPoolExecutor(_CLIENTS) as pool:
        for harms in pool.map(work, range(_CLIENTS)):
            for harm in harms:
                survived(f"64 clients at once by {protocol}, a request", harm)
    assert model_server.process.poll() is None
