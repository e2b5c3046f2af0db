"""Coverage for whoever asks often: counted where that is quick, else by the planner's figures."""

from embedmigrate.app import planning
from embedmigrate.app.opening import Opening
from embedmigrate.app.values import Stats
from embedmigrate.config import Loaded
from embedmigrate.postgres import census


async def coverage(loaded: Loaded, *, most: int) -> Stats:
    """Without an estimate of what is left to do.

    Args:
        loaded: The settings.
        most: Rows up to which the table is counted.
    """
    async with Opening(loaded, connections=1) as opening:
        await opening.connect()
        await opening.resolve()
        taken = await census.estimate(opening.database, opening.target)
        counts = planning.counts_of(taken)
        if counts.total <= most:
            counts = await planning.count(opening)
        return Stats(
            place=opening.place,
            counts=counts,
            tracks_staleness=opening.target.tracks_staleness,
            indexes=opening.burden.named,
            model_of_last_run=None,
            estimate=None,
        )
