"""What should be true of tasks, and the judgement whether it is: plain values, without SQL."""
