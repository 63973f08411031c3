"""All animals of the zoo."""

from tests.zoo.animal import Animal
from tests.zoo.decoders import DECODERS
from tests.zoo.encoder_decoders import SEQ2SEQS
from tests.zoo.images import IMAGES
from tests.zoo.mixed import MIXED
from tests.zoo.sounds import SOUNDS
from tests.zoo.text_encoders import TEXT

ANIMALS: tuple[Animal, ...] = (*TEXT, *DECODERS, *SEQ2SEQS, *IMAGES, *SOUNDS, *MIXED)


def find(model_type: str, variant: str = "") -> Animal:
    """The animal of a model type."""
    return next(animal for animal in ANIMALS if (animal.model_type, animal.variant) == (model_type, variant))
