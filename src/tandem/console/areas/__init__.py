"""The pages, by area. Each exports AREA; views.py lists them."""
