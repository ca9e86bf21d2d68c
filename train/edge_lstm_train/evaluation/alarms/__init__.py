"""The alarm rule that data give, and how good its alarms are."""
