"""Studies that compare methods; those of one paper's claim are in that method's package."""

__all__: list[str] = []
