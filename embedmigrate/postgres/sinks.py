"""The sink that a target needs."""

from embedmigrate.postgres.batch_sink import BatchSink
from embedmigrate.postgres.session import Database
from embedmigrate.postgres.side_sink import SideTableSink
from embedmigrate.postgres.sink import ColumnSink
from embedmigrate.postgres.target import Target


def open_sink(database: Database, target: Target) -> BatchSink:
    if target.side is None:
        return ColumnSink(database, target)
    return SideTableSink(database, target, target.side)
