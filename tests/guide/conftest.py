from guide_world import guided

__all__ = ["guided"]
