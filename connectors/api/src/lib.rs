//! What a connector is: the traits, the record and value model, options, errors, the contract suite.
