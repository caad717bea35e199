"""The client contract over Quart-Trio: REST, WebSockets, health."""
