"""How facts come in: checked against their source's contract, then into the event log; what breaks it into quarantine."""

from mainspring.ingestion.contract import Checked, Contract, Rejected, Unreadable
from mainspring.ingestion.ingest import Ingested, Ingestor
from mainspring.ingestion.quarantine import Quarantine, Quarantined

__all__ = ["Checked", "Contract", "Ingested", "Ingestor", "Quarantine", "Quarantined", "Rejected", "Unreadable"]
