"""From noise to picture: noise, schedules of noise levels, samplers that walk along them, and guidance."""
