"""The ledger of prepaid credits."""
