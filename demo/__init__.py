"""The main job on a real trained model, from download to sentence similarities: ``make demo``."""
