"""What gradients are taken of: a differentiable loss for every objective, in whole or in batches."""

from headwise.scoring.losses.build import captions_of, loss_of
from headwise.scoring.losses.captions import Captions, captions
from headwise.scoring.losses.contract import Loss, check_images, value_of

__all__ = ["Captions", "Loss", "captions", "captions_of", "check_images", "loss_of", "value_of"]
