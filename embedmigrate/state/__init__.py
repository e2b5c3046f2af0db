"""The local state: a bookmark and a control panel beside the database, which is the truth."""

from embedmigrate.state.files import JobFiles
from embedmigrate.state.mounts import network_file_system
from embedmigrate.state.name import job_name
from embedmigrate.state.record import RunState

__all__ = ["JobFiles", "RunState", "job_name", "network_file_system"]
