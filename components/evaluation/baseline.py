"""Which model a new one is compared with."""

from tfx.dsl.input_resolution.strategies import latest_blessed_model_strategy
from tfx.types import Artifact


class LatestOtherBlessedModelStrategy(latest_blessed_model_strategy.LatestBlessedModelStrategy):
    """Resolves the latest blessed model other than the candidate.

    With the stock strategy the first run's model would be its own baseline in the second, so that
    an identical run would be evaluated and pushed again instead of coming from the cache.
    """

    def resolve_artifacts(
        self, store, input_dict: dict[str, list[Artifact]]
    ) -> dict[str, list[Artifact]] | None:
        """Takes `candidate`, `model` and `model_blessing`; resolves the latter two."""
        candidates = {artifact.id for artifact in input_dict["candidate"]}
        resolved = super().resolve_artifacts(
            store,
            {
                "model": [model for model in input_dict["model"] if model.id not in candidates],
                "model_blessing": input_dict["model_blessing"],
            },
        )
        return {"candidate": input_dict["candidate"], **resolved}
