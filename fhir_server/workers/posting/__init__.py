"""What posts money: accounts read, remittances drafted and posted, and what follows from them (docs/payments.md)."""
