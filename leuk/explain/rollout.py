"""Attention rollout (Abnar & Zuidema 2020): share of each patch that attention carries to [CLS]."""

import torch
from torch import Tensor

from leuk.classifiers.base import Classifier
from leuk.config.schema import Count
from leuk.explain.base import Attribution, Explainer
from leuk.explain.perturb import patch_segments, spread


class AttentionRollout(Explainer):
    """Attention matrices of all blocks, multiplied from first to last, in the row of [CLS].

    Heads are averaged, and the residual connection has the same weight as the attention (section 3
    of the paper). The map depends neither on the target class nor on the head's weights, so it is
    no evidence for a class; it serves as a comparison for Grad-CAM.

    Args:
        batch_size: images per pass.
        when_possible: skip classifiers without patches instead of refusing them.
    """

    name = "rollout"
    title = "attention rollout"
    quantity = "share of [CLS] by attention rollout"
    needs_patches = True
    of_attention = True

    def __init__(self, batch_size: Count = 64, when_possible: bool = False) -> None:
        self.batch_size = batch_size
        self.when_possible = when_possible

    @torch.no_grad()
    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        shares = []
        for batch in images.split(self.batch_size):
            attention = classifier.attention(batch).float().mean(dim=2)  # (B, depth, 1 + N, 1 + N)
            mixed = (attention + torch.eye(attention.shape[-1], device=images.device)) / 2
            rolled = mixed[:, 0]
            for block in mixed[:, 1:].unbind(dim=1):
                rolled = block @ rolled
            shares.append(rolled[:, 0, 1:].cpu())
        reached = torch.cat(shares)  # (B, N)
        segments = patch_segments(images.shape[-1], reached.shape[1], len(images))
        return Attribution(spread(reached, segments), "patch", segments=segments, signed=False)
