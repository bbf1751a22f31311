"""The reward model: loss over whole rankings, training, accuracy with intervals, scoring."""
