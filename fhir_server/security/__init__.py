"""Who asks, what they may do, and the trace they leave: seams now, implementations later."""
