"""The page for sellers: suggestions as one types, over a served model."""
