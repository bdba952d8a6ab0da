"""The on-premises side: what a primary site with every role on one server does."""
