"""How anything is written: actions, their targets, references between them, plan and commit."""
