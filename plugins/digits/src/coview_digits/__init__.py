"""scikit-learn's digits, drawn anywhere and in any colour: small sets on which training shows."""
