"""What a service says about itself: status, statistics, refusals and losses."""
