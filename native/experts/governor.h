// Whether reading ahead pays at all, by the clock: now and then tokens are timed with and without it.
#pragma once

#include <vector>

namespace edgemoe {

// Times single tokens with and without speculation, and keeps the faster way until the next trial.
//
// How many experts are missing differs much from token to token: only a difference that is larger than its
// standard error changes what was kept before. One turn that is held up must not hide it.
class Governor {
  public:
    // Tokens over which it times both ways, and those between two such trials. It changes between them after
    // every few tokens, so that whatever else slows the machine down meets both alike.
    static constexpr int kTrialTokens = 48, kKeepTokens = 480, kTurnTokens = 3;

    // Layers that run at every step.
    explicit Governor(int num_layers);

    bool is_on() const { return is_on_; }
    // One layer of one token, waiting included.
    void layer_took(double elapsed_s);

  private:
    bool choose() const;

    int turn_layers_, trial_layers_, keep_layers_;
    std::vector<double> on_s_, off_s_;  // of the turns of this trial
    double turn_s_ = 0;
    int count_;  // layers since the trial, or what was kept after it, began
    bool is_trial_ = false;
    bool kept_ = true;
    bool is_on_ = true;
};

}  // namespace edgemoe
