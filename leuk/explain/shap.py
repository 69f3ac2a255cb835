"""SHAP (Lundberg & Lee 2017), by the shap library: per pixel, per region, per patch embedding.

Every method says how far its values are from additive: ``checks["additivity_error"]`` is
|sum of the map - (log-odds of the cell - log-odds of what it is compared with)|, over the range
of the log-odds that were asked for. shap's DeepExplainer is not among them: it fails on LayerNorm.
"""

from collections.abc import Sequence

import numpy as np
import shap
import torch
from torch import Tensor, nn

from leuk.classifiers.classifier import Classifier
from leuk.config.ranges import Count, CountOrZero
from leuk.errors import ConfigError
from leuk.explain.explainer import Attribution, Explainer, Unit, log_odds
from leuk.explain.perturb import (
    Hide,
    ask,
    ask_parts,
    ask_tokens,
    compared_tokens,
    hidden,
    patch_segments,
    spread,
)
from leuk.explain.shap_masker import Answer, numpy_seeded, owen_values

_DRAWS = 50
"""Draws shap makes at once; it keeps each in float64, 1.2 MB of an image of 224 px, four times."""

_ROUNDING = 1e-5
"""Tokens nearer to their stand-in than this share of the largest are it, up to rounding."""


class GradientSHAP(Explainer):
    """Expected gradients (shap's ``GradientExplainer``; Erion et al. 2021), summed over channels.

    A pixel's value is the mean, over training cells and places on the way from one to the explained
    cell, of its gradient times its difference. They sum to the cell's log-odds less the training
    cells' mean as the draws grow in number; the range of the error is the explained cell's and the
    training cells'. A cell's draws depend on the seed alone, not on what else is explained.

    Args:
        samples: draws a cell.
        batch_size: images a pass.
        seed: of the draws.
    """

    name = "shap_pixels"

    def __init__(self, samples: Count = 200, batch_size: Count = 25, seed: CountOrZero = 0) -> None:
        self.samples, self.batch_size, self.seed = samples, batch_size, seed

    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        with torch.autocast(images.device.type, enabled=False):
            asked = _LogOdds(classifier, self.batch_size)
            method = shap.GradientExplainer(asked, background, batch_size=self.batch_size)
            maps = torch.cat([self._map(method, image) for image in images.split(1)])
            said = ask(classifier, images, self.batch_size).cpu()
            compared = ask(classifier, background, self.batch_size).cpu()
        seen = torch.cat([said[:, None], compared.expand(len(said), -1)], dim=1)
        range_ = seen.amax(dim=1) - seen.amin(dim=1)
        error = _additivity_error(maps, said - compared.mean(), range_)
        return Attribution(maps, "pixel", checks={"additivity_error": error})

    def _map(self, method: shap.GradientExplainer, image: Tensor) -> Tensor:
        """Map ``(1, R, R)`` of one ``(1, 3, R, R)`` image: the mean over rounds of draws."""
        rounds = [min(_DRAWS, self.samples - made) for made in range(0, self.samples, _DRAWS)]
        seeds = np.random.SeedSequence(self.seed).generate_state(len(rounds))
        total = torch.zeros(image[:, 0].shape, dtype=torch.float64)
        for draws, seed in zip(rounds, seeds.tolist(), strict=True):
            with numpy_seeded(seed):  # shap seeds it and does not put it back
                values = method.shap_values(image, nsamples=draws, rseed=seed)
            total += torch.from_numpy(values[..., 0]).sum(dim=1) * draws
        return (total / self.samples).float()


class _LogOdds(nn.Module):
    """A classifier as shap wants it: ``(B, 1)`` log-odds, however many images it is given."""

    def __init__(self, classifier: Classifier, batch_size: int) -> None:
        super().__init__()
        self.held = (classifier,)  # in a tuple it is no child, whose gradients shap would clear
        self.batch_size = batch_size

    def forward(self, images: Tensor) -> Tensor:
        parts = [log_odds(self.held[0](part)) for part in images.split(self.batch_size)]
        return torch.cat(parts)[:, None]


class _Owen(Explainer):
    """Owen values of a grid of parts, see :func:`leuk.explain.shap_masker.owen_values`."""

    def __init__(self, evaluations: Count, batch_size: Count, seed: CountOrZero) -> None:
        self.evaluations, self.batch_size, self.seed = evaluations, batch_size, seed

    def _valued(
        self,
        answers: Sequence[Answer],
        players: Tensor,
        gains: Tensor,
        segments: Tensor,
        unit: Unit,
    ) -> Attribution:
        """Values of all images' parts as maps.

        Args:
            answers: what the classifier says of each of B images.
            players: ``bool (B, h, w)`` on the CPU, see ``owen_values``.
            gains: ``float32 (B,)``, log-odds of an image less those with every part hidden.
            segments: ``int64 (B, R, R)``, the part of each pixel.
            unit: what a part is.
        """
        found = [
            owen_values(answer, there, self.evaluations, self.seed)
            for answer, there in zip(answers, players, strict=True)
        ]
        plays = players.flatten(1).gather(1, segments.flatten(1)).view(segments.shape)
        segments = segments.where(plays, -1)
        maps = spread(torch.stack([owen.values for owen in found]), segments)
        error = _additivity_error(maps, gains.cpu(), torch.tensor([owen.spread for owen in found]))
        return Attribution(maps, unit, checks={"additivity_error": error}, segments=segments)


class PartitionSHAP(_Owen):
    """Owen values of image regions (shap's ``PartitionExplainer``), for every classifier.

    Regions are squares of a grid. Those that look the same when hidden, as black background does,
    are no part of the game: their value is 0 and their segment -1. What a cell is compared with is
    itself with every region hidden.

    Args:
        evaluations: images asked for a cell.
        regions: a side of the grid; as many as patches a side to explain by patches.
        hide: how a hidden region looks, see :func:`leuk.explain.perturb.hidden`.
        batch_size: images a pass.
        seed: of the order among blocks of regions that matter equally.
    """

    name = "shap_regions"

    def __init__(
        self,
        evaluations: Count = 500,
        regions: Count = 16,
        hide: Hide = "cell",
        batch_size: Count = 32,
        seed: CountOrZero = 0,
    ) -> None:
        super().__init__(evaluations, batch_size, seed)
        self.regions, self.hide = regions, hide

    @torch.no_grad()
    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        side, count = images.shape[-1], self.regions**2
        if not 2 <= self.regions <= side:
            raise ConfigError(
                f"explain.shap_regions.regions={self.regions}: an image of {side} px has 2 to "
                f"{side} regions a side; choose one of these, such as {min(16, side)}"
            )
        others = hidden(images, self.hide)
        segments = patch_segments(side, count, len(images))
        grid = segments[0].to(images.device)
        differs = (images != others).any(dim=1).flatten(1).long()
        found = differs.new_zeros(len(images), count).scatter_add(
            1, grid.flatten().expand_as(differs), differs
        )
        players = (found > 0).view(-1, self.regions, self.regions).cpu()
        gains = ask(classifier, images, self.batch_size) - ask(classifier, others, self.batch_size)
        answers = [
            self._answer(classifier, image, other, grid)
            for image, other in zip(images, others, strict=True)
        ]
        patches = classifier.has_patches and classifier.tokens(images[:1]).shape[1] == count
        return self._valued(answers, players, gains, segments, "patch" if patches else "superpixel")

    def _answer(self, classifier: Classifier, image: Tensor, other: Tensor, grid: Tensor) -> Answer:
        return lambda there: ask_parts(classifier, image, other, grid, there, self.batch_size)


class PatchSHAP(_Owen):
    """Owen values of patch embeddings (shap's ``PartitionExplainer``), the thesis's figure 10.

    An absent patch is the mean of the training cells' embeddings at its place, and a cell is
    compared with all patches absent. Patches whose embedding is that mean are no part of the game.

    Args:
        evaluations: token sets asked for a cell.
        batch_size: cells a pass.
        seed: of the order among blocks of patches that matter equally.
        when_possible: leave classifiers without patches out rather than refuse them.
    """

    name = "shap_patches"
    needs_patches = True

    def __init__(
        self,
        evaluations: Count = 500,
        batch_size: Count = 32,
        seed: CountOrZero = 0,
        when_possible: bool = False,
    ) -> None:
        super().__init__(evaluations, batch_size, seed)
        self.when_possible = when_possible

    @torch.no_grad()
    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        tokens, other = compared_tokens(classifier, images, background, self.batch_size)
        apart = (tokens - other).abs().amax(dim=2)  # (B, N)
        players = (apart > _ROUNDING * tokens.abs().amax()).cpu()
        segments = patch_segments(images.shape[-1], players.shape[1], len(images))
        across = int(segments[0, 0, -1]) + 1
        gains = ask(classifier, images, self.batch_size) - log_odds(
            classifier.from_tokens(other[None])
        )
        answers = [self._answer(classifier, one, other) for one in tokens]
        return self._valued(answers, players.unflatten(1, (across, -1)), gains, segments, "patch")

    def _answer(self, classifier: Classifier, tokens: Tensor, other: Tensor) -> Answer:
        return lambda there: ask_tokens(classifier, tokens, other, there, self.batch_size)


def _additivity_error(maps: Tensor, gains: Tensor, range_: Tensor) -> Tensor:
    """How far maps ``(B, R, R)`` are from summing to ``gains (B,)``, over ``range_ (B,)``."""
    error = (maps.double().sum(dim=(1, 2)) - gains).abs()
    return (error / range_.clamp(min=torch.finfo(torch.float32).tiny)).float()
