"""The choice of the model with which a new model is compared."""

import ml_metadata as mlmd
from tfx.dsl.input_resolution.strategies import latest_blessed_model_strategy
from tfx.types import Artifact


class LatestOtherBlessedModelStrategy(latest_blessed_model_strategy.LatestBlessedModelStrategy):
    """Resolves the latest blessed model other than the candidate.

    With the stock strategy, the model of the first run would be its own baseline in the second run.
    Therefore an identical run would evaluate and push the model again instead of using the cache.
    """

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[Artifact]]
    ) -> dict[str, list[Artifact]] | None:
        """Resolves `model` and `model_blessing`, and returns `candidate` as it is given."""
        candidates = {artifact.id for artifact in input_dict["candidate"]}
        resolved = super().resolve_artifacts(
            store,
            {
                "model": [model for model in input_dict["model"] if model.id not in candidates],
                "model_blessing": input_dict["model_blessing"],
            },
        )
        return {"candidate": input_dict["candidate"], **resolved}
